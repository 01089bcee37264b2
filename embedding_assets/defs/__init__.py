"""What Dagster sees: assets, checks, jobs, schedules, sensors, and how runs are launched."""
