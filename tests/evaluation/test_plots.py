import io
import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image

from amnesiac.evaluation import ForgottenExample, draw_figures, to_png, to_svg
from amnesiac.evaluation.plots import COLOURS, MAX_CLASSES

NASTY = "<script>alert(1)</script>$_$"


def metrics(names=("0", "1", "2"), forget=5, roles=("original", "unlearned", "retrained"), odd_one=None):
    per_class = dict.fromkeys(names, 0.9)
    role = {
        "forget_accuracy": 0.25 if forget else None,
        "retain_accuracy": 0.75,
        "test_accuracy": 0.625,
        "per_class_test_accuracy": per_class,
        "kl_forget": 1.5 if forget else None,
        "kl_test": 0.125,
    }
    result = {name: dict(role) for name in roles}
    if odd_one is not None:
        result["unlearned"]["per_class_test_accuracy"] = {**per_class, odd_one: 0.1}
    result["samples"] = {"forget": forget, "retain": 20, "test": 30}
    return result


def texts(svg):
    return [
        "".join(element.itertext()).strip() for element in ElementTree.fromstring(svg).iter() if "text" in element.tag
    ]


def examples(n=3):
    image = torch.arange(36.0).reshape(1, 6, 6)
    return [ForgottenExample(image, "three", {"original": "three", "unlearned": NASTY}) for _ in range(n)]


def svgs(*args, **options):
    return {name: to_svg(figure) for name, figure in draw_figures(*args, **options).items()}


def test_figures_by_name():
    assert list(draw_figures(metrics())) == ["accuracy", "kl", "per_class_accuracy"]
    assert list(draw_figures(metrics(), examples()))[-1] == "examples"


def test_the_figures_say_the_numbers():
    drawn = svgs(metrics(roles=tuple(COLOURS)))
    assert {"25.0", "75.0", "62.5", "forget set", "retain set", "test set", *COLOURS} <= set(texts(drawn["accuracy"]))
    assert {"1.5", "0.125", "original", "unlearned", "repaired", "nats, test set"} <= set(texts(drawn["kl"]))
    assert "retrained" not in texts(drawn["kl"])
    for role, colour in COLOURS.items():
        assert drawn["accuracy"].count(colour) >= 4, role


def test_the_same_numbers_give_the_same_bytes():
    assert svgs(metrics(), examples()) == svgs(metrics(), examples())
    first, second = (to_png(draw_figures(metrics())["accuracy"]) for _ in range(2))
    assert first == second and first.startswith(b"\x89PNG")


def test_bytes_are_the_same_in_another_process_and_with_other_defaults():
    program = (
        "import sys, matplotlib as mpl; mpl.rcParams['svg.hashsalt'] = None; mpl.rcParams['font.size'] = 17\n"
        "from amnesiac.evaluation import draw_figures, to_svg\n"
        f"sys.stdout.write(to_svg(draw_figures({metrics()!r})['accuracy']))\n"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout == svgs(metrics())["accuracy"]


def test_no_dates_and_nothing_from_elsewhere():
    for svg in svgs(metrics(), examples()).values():
        assert svg.startswith("<svg") and "<!DOCTYPE" not in svg and "<dc:date" not in svg
        links = re.findall(r'href="([^"]*)"', svg)
        assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
        assert not re.findall(r"url\((?!#)", svg)


def test_every_reference_has_its_id_and_no_other_id_is_left():
    for svg in svgs(metrics(), examples()).values():
        ids = re.findall(r' id="([^"]*)"', svg)
        used = re.findall(r'(?:href="#|url\(#)([\w-]+)', svg)
        assert set(ids) == set(used)
        assert len(ids) == len(set(ids))


def test_text_and_axes_follow_the_pages_scheme():
    svg = svgs(metrics())["accuracy"]
    assert "currentColor" in svg and "#010203" not in svg and "#000000" not in svg


def test_class_names_are_text_whatever_they_hold():
    svg = svgs(metrics(names=(NASTY, "a$b")))["per_class_accuracy"]
    assert "<script" not in svg
    assert "a$b" in texts(svg)
    assert "<script>alert(1…"[:15] in " ".join(texts(svg))
    assert "<script" not in svgs(metrics(), examples())["examples"]


def test_numbered_classes_stand_in_order():
    names = sorted(map(str, range(12)))
    assert names[:3] == ["0", "1", "10"]
    shown = [text for text in texts(svgs(metrics(names))["per_class_accuracy"]) if text.isdecimal()]
    assert shown[:12] == [str(k) for k in range(12)]


def test_of_many_classes_those_that_differ_are_drawn():
    svg = svgs(metrics([f"c{k:03}" for k in range(100)], odd_one="c077"))["per_class_accuracy"]
    shown = [text for text in texts(svg) if re.fullmatch(r"c\d+", text)]
    assert len(shown) == MAX_CLASSES and "c077" in shown
    assert f"the {MAX_CLASSES} of 100 classes whose accuracies differ most, test set" in texts(svg)


def test_an_empty_forget_set_is_left_out():
    drawn = svgs(metrics(forget=0))
    assert "forget set" not in texts(drawn["accuracy"]) and "retain set" in texts(drawn["accuracy"])
    assert "1.5" not in texts(drawn["kl"]) and "0.125" in texts(drawn["kl"])


@pytest.mark.parametrize("channels", [1, 3])
def test_example_images_are_stretched_to_black_and_white(channels):
    image = torch.zeros(channels, 4, 4) - 3
    image[:, :, 2:] = 5
    example = ForgottenExample(image, "cat", {"original": "cat", "unlearned": "dog"})
    figure = draw_figures(metrics(), [example])["examples"]
    pixels = np.asarray(figure.axes[0].images[0].get_array())
    assert pixels[0, 0].min() == 0.0 and pixels[0, 3].max() == 1.0
    assert {"cat", "original: cat", "unlearned: dog"} <= set(texts(to_svg(figure)))


def test_png_is_on_white_and_of_the_asked_size():
    picture = Image.open(io.BytesIO(to_png(draw_figures(metrics())["accuracy"], dpi=100)))
    assert picture.size == (720, 320)
    assert picture.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
    assert "Software" not in picture.info


def test_global_settings_are_left_alone_and_pyplot_is_not_imported():
    before = dict(mpl.rcParams)
    svgs(metrics(), examples())
    assert dict(mpl.rcParams) == before
    program = "import sys, amnesiac.evaluation; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
