from __future__ import annotations

from pathlib import Path

from PIL import Image

from pipeline.runners.preparation_report import prepared_metrics, summarise, write_preparation_report
from pipeline.runners.preparation_sheet import contact_sheet
from tests.prepared_sets import make_photos, make_set, settings_of


def test_the_report_counts_and_shows_people_and_what_was_left_out(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    _, gathered, people, photos = make_set(settings, make_photos(tmp_path))
    summary = summarise(photos, people, settings)
    assert summary["photos"] == {"total": 13, "kept": 11, "dropped": 2}
    assert summary["reasons"] == {"outlier": 1, "unreadable": 1}
    assert (summary["identities"], summary["faces"]) == (3, 11)
    assert summary["faces_per_identity"] == {"least": 3, "median": 4, "most": 4}
    metrics = prepared_metrics(photos, summary)
    assert metrics["reasons/outlier"] == 1
    assert metrics["kept/cosine/median"] > 0.9

    files = write_preparation_report(settings, tmp_path / "report", gathered, people, photos, summary)
    assert sorted(file.name for file in files) == ["contact_sheet.jpg", "measured.png", "report.html"]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "left out because" in page
    assert "p0/broken.png" in page
    assert page.count("base64,") == 2
    sheet = Image.open(tmp_path / "report" / "contact_sheet.jpg")
    assert sheet.width > 1000
    assert sheet.height > 4 * 128


def test_clusters_are_told_with_their_threshold_and_sizes(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, labels="cluster")
    _, _, people, photos = make_set(settings, make_photos(tmp_path))
    found = summarise(photos, people, settings)["clusters"]
    assert (found["min_cosine"], found["found"]) == (0.3, 3)
    assert {size: count for size, count in found["sizes"].items() if count} == {"3-5": 3}


def test_no_sheet_is_made_when_none_is_wanted_and_an_empty_set_still_has_one(tmp_path: Path) -> None:
    make_photos(tmp_path)
    settings = settings_of(tmp_path, tracking={"contact_sheet": 0})
    _, gathered, people, photos = make_set(settings, [])
    assert contact_sheet(settings, gathered, people, photos) is None
    summary = summarise(photos, people, settings)
    assert summary["identities"] == summary["faces"] == 0
    wanted = settings_of(tmp_path)
    files = write_preparation_report(wanted, tmp_path / "report", gathered, people, photos, summary)
    assert len(files) == 3
    assert prepared_metrics(photos, summary)["photos/kept"] == 0
