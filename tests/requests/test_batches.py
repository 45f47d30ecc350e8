"""Batches go from state to state in order, one at a time, by the writer who holds the newest fence."""

import pytest
from sqlalchemy import update

from amnesiac.errors import BatchConflict, DamagedStore, RequestError, StaleWriter
from amnesiac.requests import STATES, Batches, Journal, RequestDraft, tables


@pytest.fixture
def journal(tmp_path, index, address):
    journal = Journal(tmp_path / "journal", address)
    journal.file([RequestDraft("samples", (f"s{k}",), f"r{k}") for k in range(4)], index)
    return journal


@pytest.fixture
def batches(journal):
    return Batches(journal)


def advanced(batches, batch, to):
    for state in STATES[STATES.index(batch.state) + 1 : STATES.index(to) + 1]:
        batch = batches.advance(batch, state)
    return batch


def test_a_batch_goes_through_all_states_and_keeps_facts_and_times(batches):
    batch = batches.open(["r0", "r2"])
    assert (batch.number, batch.state, batch.request_ids, batch.ended) == (1, "RECEIVED", ("r0", "r2"), None)
    for state in STATES[1:]:
        batch = batches.advance(batch, state, {"of": state})
        assert batch.state == state
    assert [event.state for event in batch.events] == list(STATES)
    assert batch.facts("PURGED") == {"of": "PURGED"}
    assert batch.facts("RECEIVED") == {"requests": 2}
    assert all(one.at <= two.at for one, two in zip(batch.events, batch.events[1:], strict=False))
    assert batches.history() == (batch,)
    assert batches.current() is None
    assert batches.request_states() == {"r0": "RECEIPTED", "r2": "RECEIPTED"}


@pytest.mark.parametrize("to", [state for state in STATES if state != "EVALUATED"])
def test_only_the_next_state_can_be_reached(batches, to):
    batch = advanced(batches, batches.open(["r0"]), "STAGED")
    with pytest.raises(BatchConflict, match=f"deletion batch 1 is STAGED, which {to} doesn't follow"):
        batches.advance(batch, to)
    assert batches.history() == (batch,)


def test_the_last_state_has_no_next(batches):
    batch = advanced(batches, batches.open(["r0"]), "RECEIPTED")
    with pytest.raises(BatchConflict, match="is RECEIPTED"):
        batches.advance(batch, "RECEIPTED")


def test_one_batch_at_a_time(batches):
    first = batches.open(["r0"])
    with pytest.raises(BatchConflict, match=r"batch 1 is unfinished \(RECEIVED\): run `amnesiac recover`"):
        batches.open(["r1"])
    advanced(batches, first, "RECEIPTED")
    assert batches.open(["r1"]).number == 2


def test_a_batch_is_finished_where_the_pipeline_ends(journal):
    batches = Batches(journal, last="PUBLISHED")
    first = advanced(batches, batches.open(["r0"]), "PUBLISHED")
    second = advanced(batches, batches.open(["r1"]), "PUBLISHED")
    assert batches.current() is None
    assert Batches(journal).current() == first, "once later states exist, the oldest goes on first"
    assert Batches(journal).history() == (first, second)


def test_a_batch_of_nothing_needs_no_journal(tmp_path, address):
    batches = Batches(Journal(tmp_path / "new", address))
    assert batches.current() is None
    assert batches.history() == ()
    assert batches.open([]).request_ids == ()
    assert Journal(tmp_path / "new", address).requests() == ()


def test_unknown_requests_are_refused_and_nothing_opened(batches):
    with pytest.raises(RequestError, match="request 'nobody' isn't in the journal"):
        batches.open(["r0", "nobody"])
    assert batches.history() == ()


def test_whoever_was_taken_over_can_do_nothing_more(batches):
    stale = advanced(batches, batches.open(["r0"]), "PLANNED")
    fresh = batches.take_over(stale)
    assert fresh.fence > stale.fence
    for act in (lambda: batches.advance(stale, "STAGED"), lambda: batches.abandon(stale, "why")):
        with pytest.raises(StaleWriter, match=rf"taken over by another writer \(fence {fresh.fence}, this one has"):
            act()
    assert batches.advance(fresh, "STAGED").state == "STAGED"


def test_fences_only_grow(batches):
    fences = [batches.open(["r0"]).fence]
    for _ in range(3):
        batch = batches.take_over(batches.current())
        fences.append(batch.fence)
    batches.abandon(batch, "why")
    fences.append(batches.open(["r0"]).fence)
    assert fences == sorted(set(fences))


def test_what_fails_while_it_advances_is_undone(batches):
    batch = advanced(batches, batches.open(["r0"]), "EVALUATED")
    with pytest.raises(OSError, match="no rename"), batches.advancing(batch, "PUBLISHED", {}) as after:
        assert after.state == "PUBLISHED"
        raise OSError("no rename")
    assert batches.history() == (batch,)


def test_an_abandoned_batch_gives_its_requests_back(batches):
    batch = advanced(batches, batches.open(["r0", "r1"]), "EVALUATED")
    ended = batches.abandon(batch, "killed")
    assert (ended.ended, ended.events[-1].state, ended.events[-1].facts) == (
        "abandoned",
        "ABANDONED",
        {"reason": "killed"},
    )
    assert batches.request_states() == {}
    assert batches.open(["r0", "r1", "r2"]).number == 2
    for act in (lambda: batches.advance(ended, "PUBLISHED"), lambda: batches.abandon(ended, "again")):
        with pytest.raises(BatchConflict, match="batch 1 is abandoned"):
            act()


def test_what_is_published_cant_be_abandoned_but_rolled_back_until_keys_are_destroyed(batches):
    batch = advanced(batches, batches.open(["r0"]), "PUBLISHED")
    with pytest.raises(BatchConflict, match="batch 1 is PUBLISHED and can't be abandoned"):
        batches.abandon(batch, "why")
    with batches.rolling_back(batch, {"to": "before"}) as fence:
        assert fence > batch.fence
    assert batches.request_states() == {}
    second = advanced(batches, batches.open(["r0"]), "KEYS_DESTROYED")
    with (
        pytest.raises(BatchConflict, match="batch 2 is KEYS_DESTROYED and can't be rolled back"),
        batches.rolling_back(second, {}),
    ):
        raise AssertionError("entered")


def test_damage_is_named(batches, journal):
    batches.open(["r0"])
    with journal.database.writing() as connection:
        connection.execute(update(tables.batches).values(state="DONE"))
    with pytest.raises(
        DamagedStore, match="deletion batch 1 can't be read .*unknown state 'DONE'.*restore the journal"
    ):
        batches.history()
