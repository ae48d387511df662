"""SRFlow in ComfyUI: nodes that draw samples, and SRFlow's files in ComfyUI's own "Load Upscale Model"."""

from srflow_plugin.integrations import spandrel

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

spandrel.install()

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
