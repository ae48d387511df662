"""A Space of the Hugging Face Hub: the page of ``srflow demo``.

Variables: SRFLOW_NETWORKS names the networks, with blanks between (default: those of the package); GRADIO_SERVER_PORT
the port. SPACE_HOST, the Space's name on the web, comes from the Hub.
"""

import os

from srflow_plugin.applications.upscale import find_network
from srflow_plugin.demo.hosts import Hosts
from srflow_plugin.demo.serve import Serving, serve
from srflow_plugin.demo.session import Session

NETWORKS = os.environ.get("SRFLOW_NETWORKS", "srflow_x4 srflow_x4_real srflow_x8_face").split()
LARGEST_IMAGE = 256 * 256  # low-resolution pixels
LARGEST_FILE = 20 * 2**20  # bytes


def main() -> None:
    hosts = Hosts("0.0.0.0", name=os.environ.get("SPACE_HOST"), framed_by="https://huggingface.co")
    port = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    sessions = {name: Session(find_network(checkpoint=name), LARGEST_IMAGE, name) for name in NETWORKS}
    serve(sessions, Serving(hosts, port, LARGEST_FILE))


if __name__ == "__main__":
    main()
