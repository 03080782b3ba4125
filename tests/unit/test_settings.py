"""Settings: every value that cannot work is refused at the start, with its variable, the value and the range."""

from __future__ import annotations

import pytest

from dumpagent import settings
from dumpagent.errors import BadSettings
from dumpagent.setting import Kind, Setting, declared


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("30s", 30), ("500ms", 0.5), ("5m", 300), ("2h", 7200), ("7d", 604800), ("1.5 s", 1.5)],
)
def test_a_duration_is_a_number_of_seconds_or_carries_its_unit(text: str, seconds: float) -> None:
    assert Setting("X", Kind.DURATION, "", low=0, high=1e6).parse(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1", "1 fortnight", "1e3", "nan", "99999999"])
def test_a_refused_duration_names_variable_value_and_range(text: str) -> None:
    interval, _ = declared(settings.Watching)["watch_interval_s"]
    with pytest.raises(BadSettings) as refused:
        interval.parse(text)
    assert "WATCH_INTERVAL" in str(refused.value)
    assert repr(text) in str(refused.value)
    assert "0.1 to 86400 seconds" in str(refused.value)
    assert "--watch-interval" in refused.value.hint


def test_every_default_lies_in_its_own_range() -> None:
    classes = [
        c
        for c in vars(settings).values()
        if isinstance(c, type) and hasattr(c, "__dataclass_fields__") and c is not Setting
    ]
    assert classes
    for settings_class in classes:
        for name, (setting, default) in declared(settings_class).items():
            if setting.low is not None and setting.high is not None:
                assert setting.low <= default <= setting.high, name
            assert setting.why, name
