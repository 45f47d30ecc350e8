"""WHEN: the pipeline as a table of contents; the only Prefect flows."""
