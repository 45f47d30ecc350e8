"""Per-sample amnesiac unlearning: the method, without orchestration (torch, numpy, zarr)."""

__version__ = "0.1.0"
