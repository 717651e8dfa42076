"""An app for `durably run`: the programs of the plan, and one whose activities outlast any patience."""

from __future__ import annotations

import os

from tests.faults.effects import SideFile
from tests.faults.programs import build_app, build_patient

side = SideFile(os.environ["FAULTS_SIDE"], int(os.environ["FAULTS_LIFE"]))
app = build_app(side)
app.include(build_patient(side, 60.0))
