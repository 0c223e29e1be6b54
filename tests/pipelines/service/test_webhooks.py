from __future__ import annotations

import time
from pathlib import Path

import pytest
from mlflow.webhooks import constants, delivery

from pipelines.service import webhooks
from pipelines.service.webhooks import (
    Deliveries,
    RefusedError,
    check_signature,
    event_of,
    signature,
)
from tests.pipelines.service.signing import BODY, SECRET, signed


def test_signature_and_headers_are_those_of_mlflow() -> None:
    expected = delivery._generate_hmac_signature(SECRET, "id", "1700000000", '{"a": "é"}')
    assert signature(SECRET, "id", "1700000000", '{"a": "é"}'.encode()) == expected
    names = (webhooks.DELIVERY, webhooks.TIMESTAMP, webhooks.SIGNATURE)
    assert names == tuple(
        name.lower()
        for name in (
            constants.WEBHOOK_DELIVERY_ID_HEADER,
            constants.WEBHOOK_TIMESTAMP_HEADER,
            constants.WEBHOOK_SIGNATURE_HEADER,
        )
    )


def test_a_changed_body_id_or_timestamp_is_refused() -> None:
    now = time.time()
    headers = signed("id", BODY)
    assert check_signature(SECRET, headers, BODY, now) == "id"
    changed = {webhooks.DELIVERY: "other", webhooks.TIMESTAMP: str(int(now) - 1)}
    for name, value in changed.items():
        with pytest.raises(RefusedError) as refused:
            check_signature(SECRET, headers | {name: value}, BODY, now)
        assert refused.value.status == 401
    for secret, body in ((SECRET, BODY + b" "), ("another secret", BODY)):
        with pytest.raises(RefusedError, match="signature"):
            check_signature(secret, headers, body, now)


def test_an_event_has_entity_action_and_model() -> None:
    assert event_of(BODY) == ("model_version", "created", "mine")
    for body in (b"", b"[]", b"{}", b'{"entity": 1, "action": [], "data": {}}'):
        with pytest.raises(RefusedError) as refused:
            event_of(body)
        assert refused.value.status == 400


def test_a_delivery_is_kept_as_long_as_its_timestamp_is_valid(tmp_path: Path) -> None:
    deliveries = Deliveries(tmp_path / "deliveries.db", most=2)
    ahead = 1000.0 + webhooks.TOLERANCE_SECONDS
    headers = signed("id", BODY, int(ahead))
    deliveries.add(check_signature(SECRET, headers, BODY, 1000.0), 1000.0)
    last = ahead + webhooks.TOLERANCE_SECONDS
    with pytest.raises(RefusedError, match="repeated"):
        deliveries.add(check_signature(SECRET, headers, BODY, last), last)
    with pytest.raises(RefusedError, match="too old"):
        check_signature(SECRET, headers, BODY, last + 1)
    deliveries.add("second", last)
    with pytest.raises(RefusedError, match="too many"):
        deliveries.add("third", last)
    deliveries.add("third", last + 2)
