"""Several jobs at once end as some serial order of theirs does; no request is lost or carried out twice."""

from tests.campaign.audit import audit
from tests.campaign.cycle import IDS, STEPS
from tests.campaign.sizes import sizes


def serially(project, found):
    """The same batches one after another, in a project that nobody else touches."""
    for names in found["end"]["history"]:
        for name in names:
            project.file(*found["filed"][name], name=name)
        project.run()
    return project.everything()


@sizes([(3, "a")], [(jobs, seed) for jobs in (2, 3, 4, 6, 8) for seed in "ab"])
def test_jobs_at_once(sealed, process, tmp_path, record, size):
    wrong, busy, requests = [], 0, 0
    for number, (jobs, seed) in enumerate(size):
        project = sealed.copy(tmp_path / f"{number}" / "project")
        found = process("jobs", project.root, jobs, seed)
        serial = serially(sealed.copy(tmp_path / f"{number}" / "serial"), found)
        done = [name for names in found["end"]["history"] for name in names]
        busy, requests = busy + found["busy"], requests + len(done)
        same = all(found["end"][key] == serial[key] for key in ("weights", "alive", "ledger", "redacted"))
        if any(found["codes"]) or sorted(done) != sorted(found["filed"]) or not same or audit(project):
            wrong.append((jobs, seed, found["codes"], audit(project)))
    record(
        6,
        "jobs at once",
        not wrong,
        trials=len(size),
        requests=requests,
        found_another_at_work=busy,
        wrong_results=len(wrong),
    )
    assert not wrong, wrong


def test_a_request_that_comes_during_a_run_goes_into_the_next(project, monkeypatch):
    for state in STEPS:
        real = STEPS[state]

        def step(p, batch, state=state, real=real):
            after = real(p, batch)
            if batch.request_ids == ("second",):
                p.file(IDS[STEPS_LEFT.pop()], name=f"at-{state}")
            return after

        monkeypatch.setitem(STEPS, state, step)
    STEPS_LEFT = list(range(20, 28))
    assert project.run().request_ids == ("second",)
    assert project.found()["requests"] == ["first", "second"]
    assert project.run().request_ids == tuple(f"at-{state}" for state in STEPS)
    assert len(project.chain.numbers()) == 10
    assert audit(project) == []
