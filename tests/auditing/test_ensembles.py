"""Members are files: named by what decides their bits, checked when read, never trained twice."""

from dataclasses import replace

import pytest
import torch

from amnesiac.auditing import (
    damaged_members,
    draw_sets,
    ensemble_members,
    keep_member,
    left_out_members,
    missing_members,
    read_member,
    read_memorisation,
)
from amnesiac.auditing.members import train_member
from amnesiac.errors import DamagedStore, InputError
from amnesiac.evaluation import margin, predict
from amnesiac.ledger import open_ledger
from amnesiac.settings import UnlearningSettings
from amnesiac.training import CapturePlan, retrain_without, train_with_capture
from amnesiac.unlearning import ledgers_for, unlearn


def test_a_member_is_the_same_bits_again_and_holds_no_weights(audited, tmp_path):
    member = next(m for m in audited.members if m.kind == "captured")
    kept, again = (
        read_member(audited.folder, audited.setup, member),
        train_member(audited.setup, member, tmp_path / "s"),
    )
    assert kept.keys() == again.keys() and all(torch.equal(kept[name], again[name]) for name in kept)
    assert {name.rsplit("/")[0] for name in kept} == {"original", "settled"}
    assert {name.rsplit("/")[-1] for name in kept} == {"forget", "retain", "test", "relearn"}
    assert not (tmp_path / "s").exists() and not list((audited.folder / "scratch").iterdir())


def test_sealing_only_the_forgotten_gives_the_bits_of_a_whole_ledger(audited, tmp_path):
    """An audit's shortcut against the pipeline's own way."""
    member = next(m for m in audited.members if m.kind == "captured")
    (forget,) = member.sets
    own, capture = audited.setup.with_labels_of(forget), audited.setup.capture
    plan = CapturePlan(
        capture, ledgers_for(capture), own.train.sample_ids, own.train.subject_ids, tmp_path / "ledger", tmp_path / "s"
    )
    result, _ = train_with_capture(own.spec(member.seed), own.factory(member.seed), own.train, plan)
    ledger = open_ledger(tmp_path / "ledger")
    weights = unlearn(UnlearningSettings(method="settled"), ledger, result.weights, forget.positions).weights
    model = own.factory(member.seed)()
    model.load_state_dict(weights)
    found = read_member(audited.folder, audited.setup, member)["settled/mislabelled/forget"]
    assert torch.equal(found, predict(model, own.train.inputs[list(forget.positions)]))


def test_retrained_members_never_saw_the_set_and_own_ones_share_the_seed(audited):
    by = {(m.kind, m.ensemble, m.number): m for m in audited.members}
    assert by["captured", "own", 0].seed == by["retrained", "own", 0].seed != by["retrained", "reference", 0].seed
    member = by["retrained", "reference", 2]
    (forget,) = member.sets
    own = audited.setup.with_labels_of(forget)
    weights = retrain_without(own.spec(member.seed), own.factory(member.seed), own.train, forget.positions).weights
    model = own.factory(0)()
    model.load_state_dict(weights)
    found = read_member(audited.folder, audited.setup, member)["retrained/mislabelled/test"]
    assert torch.equal(found, predict(model, own.test.inputs))


def test_margins_are_of_the_labels_that_were_trained_on(audited):
    found = audited.ensembles["mislabelled"]
    labels = torch.tensor(found.forget.labels)
    true = audited.setup.train.labels[list(found.forget.positions)]
    assert bool((labels != true).all()) and torch.equal(found.labels["forget"], labels)
    expected = margin(found.logits["original"]["forget"][3], labels)
    assert torch.equal(found.margins("original")[3], expected) and found.margins("reference").shape == (5, 6)


def test_what_decides_the_bits_decides_the_name(audited, tiny_setup):
    retrained = next(m for m in audited.members if m.kind == "retrained")
    captured = next(m for m in audited.members if m.kind == "captured")
    longer = tiny_setup(training=audited.setup.training.model_copy(update={"epochs": 16}))
    other = tiny_setup(capture=audited.setup.capture.model_copy(update={"dtype": "float16"}))
    for member in (retrained, captured):
        name = member.file_name(audited.setup)
        assert name == member.file_name(tiny_setup()) != member.file_name(longer)
        assert name != replace(member, seed=member.seed + 1).file_name(audited.setup)
    assert captured.file_name(other) != captured.file_name(audited.setup)
    assert retrained.file_name(other) == retrained.file_name(audited.setup)  # retraining captures nothing


def test_damaged_missing_and_half_written_members_are_trained_again_and_no_others(audited, tmp_path):
    members = [m for m in audited.members if m.kind == "retrained"][:4]
    for member in members:
        name = member.file_name(audited.setup)
        (tmp_path / name).write_bytes((audited.folder / name).read_bytes())
    paths = [tmp_path / member.file_name(audited.setup) for member in members]
    altered = bytearray(paths[0].read_bytes())
    altered[-3] ^= 1
    paths[0].write_bytes(altered)
    paths[1].write_bytes(b"no such thing")
    paths[2].unlink()
    (tmp_path / f".{paths[2].name}.1.partial").write_bytes(b"half")
    with pytest.raises(DamagedStore, match=rf"{paths[0].name} was altered: run the audit again"):
        read_member(tmp_path, audited.setup, members[0])
    found = damaged_members(tmp_path, audited.setup, members)
    assert [member for member, _ in found] == members[:2]
    assert "isn't a readable safetensors file" in str(found[1][1])
    untouched = paths[3].stat().st_mtime_ns
    assert missing_members(tmp_path, audited.setup, members) == members[:3]
    for member in members[:3]:
        keep_member(tmp_path, audited.setup, member, tmp_path / "scratch")
    assert missing_members(tmp_path, audited.setup, members) == [] and paths[3].stat().st_mtime_ns == untouched
    for member in members:
        again, first = (read_member(folder, audited.setup, member) for folder in (tmp_path, audited.folder))
        assert all(torch.equal(again[name], first[name]) for name in first)
    assert not list(tmp_path.glob(".*"))


def test_memorisation_finds_the_samples_that_only_they_teach(tiny_setup, tmp_path):
    """Three samples with wrong labels: nothing else teaches those, so they are the most memorised."""
    setup = tiny_setup()
    labels = setup.train.labels.clone()
    labels[[4, 20, 37]] = (labels[[4, 20, 37]] + 1) % 3
    setup = tiny_setup(train=replace(setup.train, labels=labels), data_hash="three wrong")
    members = left_out_members(setup, 8)
    assert all(sorted(k for m in members[i : i + 4] for k in m.left_out) == list(range(60)) for i in (0, 4))
    for member in members:
        keep_member(tmp_path, setup, member, tmp_path)
    scores = read_memorisation(tmp_path, setup, members)
    most, least = draw_sets(setup, ("most memorised", "least memorised"), 0.1, scores)
    assert {4, 20, 37} <= set(most.positions) and not set(most.positions) & set(least.positions)
    assert float(scores[list(most.positions)].min()) > float(scores[list(least.positions)].max())
    assert len(most.positions) == 6


def test_sets_that_cannot_be_drawn_are_refused(tiny_setup):
    setup = tiny_setup()
    with pytest.raises(InputError, match=r"no forget set is called \['hard'\]: choose from random"):
        draw_sets(setup, ("hard",), 0.1, None)
    with pytest.raises(InputError, match="needs memorisation scores"):
        draw_sets(setup, ("most memorised",), 0.1, None)
    with pytest.raises(InputError, match="share to forget is 0.9"):
        draw_sets(setup, ("random",), 0.9, None)
    with pytest.raises(InputError, match="at least 4 models, so that each sample is left out once: 3"):
        left_out_members(setup, 3)
    with pytest.raises(InputError, match="at least 4 models a side, and 3"):
        ensemble_members(setup, draw_sets(setup, ("random",), 0.1, None), 3)


def test_only_captured_classes_are_forgotten(tiny_setup):
    setup = tiny_setup(capture=tiny_setup().capture.model_copy(update={"classes": (2,)}))
    (found,) = draw_sets(setup, ("random",), 0.4, None)
    assert {int(setup.train.labels[k]) for k in found.positions} == {2} and len(found.positions) == 8
