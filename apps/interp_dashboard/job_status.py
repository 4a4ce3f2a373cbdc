"""The state of jobs on a page: the outcome of the last attempt, the start button, progress, and other unfinished jobs."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from interp.store import StoredRun
from interp_dashboard import jobs
from interp_dashboard.export import export_menu
from interp_dashboard.formatting import duration, plain
from interp_dashboard.job_plan import JobPlan
from interp_dashboard.jobs import Job, JobStatus
from interp_dashboard.settings import settings
from interp_dashboard.url import State

POLL = 1.0
UNITS_ARE_KEPT = "Completed units are kept: the job can be resumed."


def start_button(
    name: str,
    start: Callable[[], object],
    last: JobStatus | None,
    *,
    label: str = "Start",
    resumable: bool = False,
    disabled: bool = False,
) -> None:
    """The outcome of the last attempt at the job ``name`` and the button that starts it; errors of ``start`` are shown.
    ``resumable``: completed units of an earlier attempt are reused."""
    if last is not None and last.state in ("failed", "cancelled"):
        show = st.error if last.state == "failed" else st.warning
        done = f" {last.done:,} of {last.total:,} units are done and will be reused." if resumable and last.total else ""
        show(f"The last attempt {'failed: ' + plain(last.error) if last.state == 'failed' else 'was cancelled.'}{done}")
    st.button(
        "Resume" if resumable and last is not None and last.done else label,
        icon=":material/play_arrow:",
        type="primary",
        disabled=disabled,
        on_click=_try,
        args=(start, name),
        key=f"start-{name}",
    )
    if problem := st.session_state.pop(f"failed-{name}", ""):
        st.error(plain(problem), icon=":material/error:")


def job_and_status(name: str) -> tuple[Job | None, JobStatus | None]:
    """The job of the run directory ``name`` and its state; None where there is none."""
    job = jobs.find(settings().root, name)
    return job, jobs.status(job) if job else None


def run_or_progress(
    state: State, plan: JobPlan, *, label: str = "Start", resumable: bool = False, about: str = ""
) -> StoredRun | None:
    """The finished run, or None after showing progress or the start button, ``about`` and the command."""
    job, now = job_and_status(plan.folder.name)
    if job and now and now.active:
        progress_panel(job.name, UNITS_ARE_KEPT if resumable else "")
    elif (run := plan.run()) is not None:
        return run
    else:
        start_button(plan.folder.name, lambda: plan.start(state.query()), now, label=label, resumable=resumable)
    if about:
        st.caption(about)
    export_menu(plan.folder.name, cli=plan.cli)
    return None


def _try(start: Callable[[], object], name: str) -> None:
    try:
        start()
    except (ValueError, MemoryError, OSError) as error:
        st.session_state[f"failed-{name}"] = str(error)


@st.fragment(run_every=POLL)
def progress_panel(name: str, about: str = "") -> None:
    """Progress of the job, refreshed every second without the rest of the page."""
    job, now = job_and_status(name)
    if job is None or now is None or not now.active:
        st.rerun()
    st.progress(now.share or 0.0, text=plain(_progress_text(job, now)))
    st.button(
        "Stopping …" if job.cancelled else "Cancel",
        icon=":material/stop:",
        disabled=job.cancelled,
        on_click=jobs.cancel,
        args=(job,),
        key=f"cancel-{name}",
        help=about or None,
    )
    st.caption("Runs in a separate process: you can close this page and come back.")


def _progress_text(job: Job, now: JobStatus) -> str:
    if now.state == "loading":
        return f"Loading {job.model} … {duration(now.seconds)}"
    if now.total is None:
        return f"One backward pass … {duration(now.seconds)}"
    if now.done == now.total:
        return f"All {now.total:,} units done. Writing tables and figures …"
    progress = f"{now.done:,} of {now.total:,} units in {duration(now.seconds)}"
    if now.rate:
        progress += f", {now.rate:,.1f} units/s"
    return progress + (f", about {duration(now.eta)} left" if now.eta else "")


def restore(state: State, job: Job) -> None:
    """Set the page to what it was when the job was started."""
    state.load_query(job.query)


def unfinished_jobs(state: State, here: set[str], kinds: set[str], show: Callable[[State, Job], None] = restore) -> None:
    """Running, failed and cancelled jobs of these kinds, of all sessions and earlier servers, except those in ``here``; ``show`` sets the
    page to one of them."""
    states = [(job, jobs.status(job)) for job in jobs.jobs(settings().root) if job.name not in here and job.command in kinds]
    open_ones = [(job, now) for job, now in states if now.state not in ("finished", "removed")]
    if not open_ones:
        return
    with st.expander(f"Other unfinished jobs ({len(open_ones)})", icon=":material/pending_actions:"):
        for job, now in open_ones:
            text, open_button, forget_button = st.columns([5, 1, 1], vertical_alignment="center")
            done = f", {now.done:,} of {now.total:,} units" if now.total else ""
            text.markdown(plain(f"{job.name}: {now.state}{done}"))
            open_button.button("Show", on_click=show, args=(state, job), key=f"show-{job.name}")
            key, about = f"forget-{job.name}", "Removes the job from this list; its results stay."
            forget_button.button("Forget", on_click=jobs.forget, args=(job,), key=key, disabled=now.active, help=about)
