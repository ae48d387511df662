"""``python -m srflow_plugin train|test|prepare ...``"""

import sys

from srflow_plugin.cli.main import all_commands

if __name__ == "__main__":
    sys.exit(all_commands())
