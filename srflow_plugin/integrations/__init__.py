"""Other tools' ways in: each module needs the tool it is named after, and nothing else imports it at the start."""
