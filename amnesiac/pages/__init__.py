"""The status page as a pure function of facts: counts, states, times and opaque ids in, HTML out."""

from amnesiac.pages.status_page import asset, render_login, render_problem, render_status

__all__ = ["asset", "render_login", "render_problem", "render_status"]
