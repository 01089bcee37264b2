-- Which deliveries of webhooks were taken, so that none is taken twice.

-- name: is_delivered(webhook_id)$
-- Whether this delivery was taken before.
SELECT EXISTS (SELECT FROM webhook_deliveries WHERE webhook_id = :webhook_id);

-- name: delivered(webhook_id)!
-- Notes that it was, and forgets those of more than a week ago.
WITH old AS (
    DELETE FROM webhook_deliveries WHERE received_at < now() - interval '7 days'
)
INSERT INTO webhook_deliveries (webhook_id) VALUES (:webhook_id) ON CONFLICT DO NOTHING;
