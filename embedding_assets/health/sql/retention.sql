-- name: calls_older_than(days)^
-- Calls that are older than so many days, by their date or by when they came in.
SELECT count(*) AS calls, min(at) AS oldest
FROM (
    SELECT coalesce((to_jsonb(calls) ->> 'recorded_at')::timestamptz,
                    (to_jsonb(calls) ->> 'created_at')::timestamptz) AS at
    FROM fathom_calls AS calls
) AS dated
WHERE at < now() - make_interval(days => :days);
