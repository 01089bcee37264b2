"""The last days as pandas' frames, and as a picture. All times are UTC."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter, DayLocator
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

DAYS = 14
STATES = ("pending", "processing", "failed", "dead_letter", "completed")
COLOURS = ("#1f77b4", "#bcbd22", "#ff7f0e", "#d62728", "#2ca02c")  # of the states, in their order
_DAY = "%d %b"
_SIZE = (9.0, 6.0)  # inches
_DPI = 80
_LINES: dict[str, Any] = {
    "x_compat": True,
    "rot": 0,
    "color": list(COLOURS),
    "linewidth": 1,
    "legend": False,
}
_FEW = 48  # snapshots
_SHADES = 64  # a palette is a quarter of the bytes; event logs keep every picture for good
_ATTEMPTS = {"hour": "datetime64[us, UTC]", "error_kind": "object", "attempts": "int64",
             "embedded": "int64", "cost_usd": "float64"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trends:
    """What happened from `since` to `until`."""

    since: datetime
    until: datetime
    queue: pd.DataFrame | None
    """A row a snapshot (index: its time), a column a state: recordings. None: nobody counts."""
    embeddings: pd.Series
    """By hour, gaps as zeros: chunks embedded."""
    failures: pd.DataFrame
    """By hour, gaps as zeros; a column a kind: attempts that ended with it."""
    cost: pd.Series
    """By day, gaps as zeros: US dollars; NaN where attempts were made at an unknown price."""


def window(until: datetime) -> datetime:
    """Where a picture that ends then begins: at a midnight, so that its days are whole ones."""
    midnight = until.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight - timedelta(days=DAYS - 1)


def trends(
    attempts: Iterable[Mapping[str, Any]],
    snapshots: Mapping[datetime, Mapping[str, Any]] | None,
    until: datetime,
) -> Trends:
    """The frames of the window that ends at `until`.

    Args:
        attempts: rows with `hour`, `error_kind`, `attempts`, `embedded` and `cost_usd`.
        snapshots: recordings by state, by the moment they were counted; None: leave that out.
        until: the present, in UTC.
    """
    since = window(until)
    rows = pd.DataFrame(list(attempts), columns=list(_ATTEMPTS)).astype(_ATTEMPTS)
    hours = pd.date_range(since, until, freq="h")
    days = pd.date_range(since, until, freq="D")
    failures = rows.dropna(subset="error_kind").pivot_table(
        index="hour", columns="error_kind", values="attempts", aggfunc="sum"
    )
    by_day = rows.groupby(rows["hour"].dt.floor("D"))["cost_usd"]
    return Trends(
        since,
        until,
        None if snapshots is None else _queue(snapshots).loc[since:until],
        rows.groupby("hour")["embedded"].sum().reindex(hours, fill_value=0),
        failures.reindex(hours).fillna(0).astype(int),
        by_day.sum(min_count=1).reindex(days, fill_value=0.0),
    )


def _queue(snapshots: Mapping[datetime, Mapping[str, Any]]) -> pd.DataFrame:
    moments = pd.DatetimeIndex(list(snapshots), tz="UTC")
    queue = pd.DataFrame(list(snapshots.values()), index=moments, columns=list(STATES))
    return queue.astype("float64").sort_index()


def picture(shown: Trends) -> bytes:
    """The trends as a PNG of four panels, or three without the queue, some 20 KB at most."""
    mpl.use("agg")  # pandas asks pyplot for a backend, and that one needs no screen
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    with mpl.rc_context({"font.size": 8, "axes.titlesize": 9, "axes.titleweight": "bold"}):
        queue = None
        if shown.queue is None:
            embeddings, failures, cost = figure.subplots(3, 1).flat
        else:
            queue, embeddings, failures, cost = figure.subplots(2, 2).flat
            _draw_queue(queue, shown.queue)
        _draw_hours(embeddings, shown.embeddings.to_frame(), "nothing was embedded")
        _draw_hours(failures, shown.failures, "no attempt failed")
        _draw_cost(cost, shown.cost)
        for axes, title, unit in (
            (queue, "Queue by state", "recordings (logarithmic)"),
            (embeddings, "Embeddings an hour", "chunks"),
            (failures, "Failures by kind, an hour", "attempts"),
            (cost, "Cost a day", "US dollars"),
        ):
            if axes is None:
                continue
            axes.set(title=title, xlabel="", ylabel=unit)
            axes.grid(axis="y", linewidth=0.8, color="#dddddd")
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        for axes in (panel for panel in (queue, embeddings, failures) if panel and panel.lines):
            axes.set_xlim(shown.since, shown.until + timedelta(hours=3))
            axes.xaxis.set_major_locator(DayLocator(interval=3))  # type: ignore[no-untyped-call]
            axes.xaxis.set_major_formatter(DateFormatter(_DAY))  # type: ignore[no-untyped-call]
        for axes in (panel for panel in (queue, failures) if panel and panel.lines):
            # Below the panel, where it hides nothing.
            axes.legend(
                ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.08), frameon=False,
                fontsize=7, handlelength=1, columnspacing=1,
            )  # fmt: skip
        figure.suptitle(
            f"{shown.since:%Y-%m-%d} to {shown.until:%Y-%m-%d %H:%M} UTC;"
            " the last hour and the last day are not over",
            fontsize=8,
        )
        return _png(figure)


def _draw_queue(axes: Axes, queue: pd.DataFrame) -> None:
    if queue.empty:
        _say(axes, "no snapshot was taken")
        return
    marker = "." if len(queue) < _FEW else ""  # a point alone is no line
    queue.plot(ax=axes, marker=marker, **_LINES)
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,.0f}")


def _draw_hours(axes: Axes, hours: pd.DataFrame, empty: str) -> None:
    """Steps, as long as the hour that they tell of."""
    if not hours.to_numpy().any():
        _say(axes, empty)
        return
    last = hours.iloc[[-1]].set_axis([hours.index[-1] + pd.Timedelta(hours=1)])
    pd.concat([hours, last]).plot(ax=axes, drawstyle="steps-post", **_LINES)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")


def _draw_cost(axes: Axes, cost: pd.Series) -> None:
    if not cost.notna().any() or not cost.fillna(0).any():
        _say(axes, "nothing was spent" if cost.notna().all() else "the model's price is not known")
        return
    days = pd.DatetimeIndex(cost.index).strftime(_DAY)
    cost.set_axis(days).plot.bar(ax=axes, width=0.8, color=COLOURS[0])
    axes.tick_params(axis="x", rotation=45)


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="grey")
    axes.set(xticks=[], yticks=[])


def _png(figure: Figure) -> bytes:
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(_SHADES, Image.Quantize.FASTOCTREE).save(
            small, format="png", optimize=True
        )
    return small.getvalue()
