import httpx


def test_search_finds_where_it_was_said(client: httpx.Client) -> None:
    answer = client.get("/api/search", params={"q": "truck cost per month"})
    assert answer.status_code == 200
    hit = answer.json()["hits"][0]
    assert hit["recording_id"] == "zoom-price"
    assert hit["speaker"] in {"Ann Bee", "Bob Cee"}
    assert hit["link"] == f"https://fathom.video/calls/1#t={int(hit['said_at'])}"
