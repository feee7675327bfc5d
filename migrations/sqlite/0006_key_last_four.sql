-- The last characters of a key's secret, so that its owner can tell one key from another. Too few to guess the rest by:
-- a secret has 256 random bits.
ALTER TABLE api_key ADD COLUMN last_four TEXT NOT NULL DEFAULT ''
    CONSTRAINT of_a_secret_at_most_four_characters_are_kept CHECK (length(last_four) <= 4);
