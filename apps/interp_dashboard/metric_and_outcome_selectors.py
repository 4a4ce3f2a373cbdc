"""Selectors of attention metrics, and of the metric of a task's answer."""

from typing import Any

import streamlit as st

from interp.metrics.outcomes import OUTCOMES
from interp_dashboard.metric_cache import about_metric, metric_names
from interp_dashboard.page_definition import View
from interp_dashboard.url import Field, State, choice

OWN_METRIC = ""


def outcome_field() -> Field:
    """The metric; by default that of the task."""
    return choice("outcome", [OWN_METRIC, *OUTCOMES.names()], noun="metric")


def choose_outcome(state: State, own: str) -> None:
    """Selector of the field ``outcome``; ``own`` labels the task's own metric."""
    names = [OWN_METRIC, *OUTCOMES.names()]
    st.selectbox("Metric", names, format_func=lambda name: name or own, **state.widget_args("outcome"))


def choose_metric(view: View) -> None:
    """Selector of the page's attention metric, the field ``metric``."""
    named: Any = {"format_func": lambda name: f"{name}: {about_metric(name)}", **view.state.widget_args("metric")}
    st.selectbox("Metric", metric_names(), width=820, **named)
