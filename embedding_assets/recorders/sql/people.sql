-- People, and the calls they are in. An address joins; a name alone never does.

-- name: people_of(recording_id)
-- Who a call's recorder names, in order.
SELECT role, ordinal, email, name, is_external FROM call_people
WHERE recording_id = :recording_id ORDER BY role, ordinal;

-- name: forget_people_of(recording_id)!
-- Takes them out, before others come in.
DELETE FROM call_people WHERE recording_id = :recording_id;

-- name: name_people_of(recording_id, roles, ordinals, emails, names, externals)!
-- Adds who a call's recorder names.
INSERT INTO call_people (recording_id, role, ordinal, email, name, is_external)
SELECT :recording_id, role, ordinal, email, name, is_external
FROM unnest(:roles::text[], :ordinals::integer[], :emails::text[], :names::text[],
            :externals::boolean[]) AS named (role, ordinal, email, name, is_external);

-- name: meet_people(emails, names)!
-- Adds those whose address is new, in order, so that two transactions cannot wait for each other.
INSERT INTO people AS known (email, name)
SELECT email, max(name) FROM unnest(:emails::text[], :names::text[]) AS met (email, name)
WHERE NOT EXISTS (SELECT FROM people WHERE aliases @> ARRAY[met.email])
GROUP BY email ORDER BY email
ON CONFLICT (email) DO UPDATE SET name = excluded.name
WHERE known.name IS NULL AND excluded.name IS NOT NULL;

-- name: list_people(pattern, limit)
-- People whose name or address holds the pattern, with the number of their calls.
SELECT people.email, people.name, people.aliases,
       (SELECT count(DISTINCT calls.recording_id) FROM call_people AS calls
        WHERE calls.email = ANY (people.email || people.aliases)) AS calls
FROM people
WHERE :pattern = '' OR position(lower(:pattern) IN lower(concat_ws(' ', name, email, aliases::text))) > 0
ORDER BY people.email
LIMIT :limit;

-- name: hold_person(email)^
-- The person with this address, until the end of the transaction; no row if nobody has it.
SELECT email, name, aliases FROM people
WHERE email = :email OR aliases @> ARRAY[:email::text]
FOR UPDATE;

-- name: give_aliases(email, name, aliases)!
-- Sets the further addresses of a person.
UPDATE people SET aliases = :aliases::text[], name = coalesce(name, :name) WHERE email = :email;

-- name: remove_person(email)!
-- Takes out a person who is one with another.
DELETE FROM people WHERE email = :email;

-- name: add_person(email)!
-- Makes an address a person of its own again, with the name that calls give it.
INSERT INTO people (email, name)
VALUES (:email, (SELECT max(name) FROM call_people WHERE email = :email));
