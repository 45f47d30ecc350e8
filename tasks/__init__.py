"""HOW: thin Prefect tasks around the core; the only place that knows where things lie."""
