"""Conversions in the process of the test, where its store and its faults are; `test_process` is about the real ones."""

from jobs.flood_risk_cog import convert as conversion
from jobs.flood_risk_cog.scratch import ScratchOwner
from jobs.flood_risk_cog.serve import do_work


class InThisProcess:
    """Takes the place of `handlers.PROCESSES`."""

    def convert(self, request, report, look):
        del look
        if "work" in request:
            return do_work(**request)
        owner = ScratchOwner(**request.pop("owner"))
        return conversion.convert_raster(**request, owner=owner, report=report)
