"""The chart in a bundle."""

import re
import subprocess

import pytest

from llmos.errors import BadRequest
from llmos_hub.bundle.chart import Chart, default_chart
from tests.support.helm import containers, find_helm, needs_helm, pod_specs, render

pytestmark = needs_helm


@pytest.fixture(scope="module")
def chart() -> Chart:
    return Chart.load(default_chart())


VALUES = {"images": {"registry": "registry.example.org:5000/ai", "tag": "t1", "notebook": {"tag": "t2"}}}


def test_images_are_named_as_helm_renders_them(chart):
    for values in ({}, VALUES):
        objects = render(values)
        rendered = {c["image"] for _, template in pod_specs(objects) for c in containers(template)}
        text = str(objects)
        rendered |= set(re.findall(r'"image": "([^"]+)"', text.replace("\\n", "\n").replace('\\"', '"')))
        names = {name.short for name in chart.images(values)}
        assert {each for each in rendered if "llmos" in each} <= names
        assert len(names) >= 3
    full = {name.key: name.full for name in chart.images(VALUES)}
    assert full["notebook"] == "registry.example.org:5000/ai/llmos-notebook:t2"
    assert {name.key: name.full for name in chart.images({})}["hub"] == "docker.io/library/llmos-hub:0.1.0"


def test_an_image_by_digest_is_refused_since_a_bundles_are_known_by_tag(chart):
    with pytest.raises(BadRequest, match=r"images.hub.digest is set: images out of a bundle are known by their tags"):
        chart.images({"images": {"hub": {"digest": f"sha256:{'1f' * 32}"}}})


def test_helm_takes_the_archive(chart, tmp_path):
    path = tmp_path / "llmos.tgz"
    path.write_bytes(chart.archive())
    command = [find_helm(), "template", "llmos", str(path), "--kube-version", "1.34.0", "--include-crds"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "kind: CustomResourceDefinition" in done.stdout
    assert "kind: Deployment" in done.stdout


def test_an_archive_is_read_as_a_directory_is_and_made_alike_each_time(chart, tmp_path):
    path = tmp_path / "llmos.tgz"
    path.write_bytes(chart.archive())
    again = Chart.load(path)
    assert again.files == chart.files
    assert again.archive() == path.read_bytes()


def test_what_helm_ignores_stays_out(tmp_path):
    (tmp_path / ".git").mkdir()
    files = {"Chart.yaml": "name: c\nversion: 1.2.3\n", "values.yaml": "", ".helmignore": "# no\n.git/\n*.tmp\n"}
    for name, text in {**files, "a.tmp": "", ".git/config": "", "templates.yaml": ""}.items():
        (tmp_path / name).write_text(text)
    assert sorted(Chart.load(tmp_path).files) == ["Chart.yaml", "templates.yaml", "values.yaml"]


def test_what_is_no_chart_is_refused(tmp_path):
    with pytest.raises(BadRequest, match="is not a Helm chart"):
        Chart.load(tmp_path)
    with pytest.raises(BadRequest, match="is not a Helm chart"):
        Chart.load(tmp_path / "missing")
