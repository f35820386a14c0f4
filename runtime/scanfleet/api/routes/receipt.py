"""`GET /job/{job_id}/receipt`: where a job's time went, what it used and what it costs."""

from fastapi import APIRouter

from scanfleet.api.lookup import JobDep
from scanfleet.api.problems import documented
from scanfleet.api.schemas import durations_so_far
from scanfleet.api.services import ServicesDep, SettingsDep
from scanfleet.receipt import Receipt, receipt_of

router = APIRouter(tags=["jobs"])


@router.get("/job/{job_id}/receipt", responses=documented(404), summary="What a job used and what it costs")
def get_receipt(job: JobDep, services: ServicesDep, settings: SettingsDep) -> Receipt:
    """Return the receipt; of a job that has not ended, as far as it has come.

    Dollars are an estimate: the on-demand price of each machine's hour, times the seconds that the job kept
    it busy and its share of the boot and of idle time. Without a price they are null, with the reason.
    """
    now = services.clock()
    return receipt_of(job, durations=durations_so_far(job, now), prices=settings.hourly_prices, now=now)
