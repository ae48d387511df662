"""The model: training (:mod:`srflow_model`) and validation (:mod:`validation`)."""

# First, so that BasicSR finds these modules whole when it registers what they define.
import basicsr  # noqa: F401
