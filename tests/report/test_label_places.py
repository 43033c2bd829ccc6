"""Names in a picture do not cover one another."""

from itertools import combinations

from mltool.report.label_places import HALF, label_places

PICTURE = (0.0, 0.0, 400.0, 200.0)


def boxes(points, widths, height=10.0):
    places = label_places(points, widths, height, PICTURE)
    return [(x + a, y + b, x + a + w, y + b + height) for (x, y), (a, b), w in zip(points, places, widths, strict=True)]


def overlap(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def test_names_of_points_that_lie_together_stand_apart_and_inside():
    points = [(200, 100), (202, 101), (203, 99), (205, 100), (398, 100), (399, 3)]
    found = boxes(points, [60.0] * 6)
    assert not any(overlap(one, other) for one, other in combinations(found, 2))
    marks = [(x - HALF, y - HALF, x + HALF, y + HALF) for x, y in points]
    assert not any(overlap(box, mark) for box in found for mark in marks)
    assert all(box[0] >= 0 and box[1] >= 0 and box[2] <= 400 and box[3] <= 200 for box in found)


def test_a_name_alone_stands_at_the_right_of_its_point():
    # By hand: 4 points of gap and 4 of mark to the right; half of a line of 10 below.
    assert label_places([(100, 100)], [50.0], 10.0, PICTURE) == [(8.0, -5.0)]


def test_a_name_without_a_place_is_written_all_the_same():
    assert label_places([(10, 10)], [1000.0], 10.0, PICTURE) == [(8.0, -5.0)]
