"""Metrics of 8-bit images, as BasicSR's: uint8 BGR (H, W, 3)."""

# First, so that BasicSR finds these modules whole when it registers what they define.
import basicsr  # noqa: F401
