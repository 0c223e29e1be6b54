"""What several commands take."""

from __future__ import annotations

HOME_HELP = "Folder of the stores and artifacts (default: ADAPRUNER_HOME, else .adapruner)."
