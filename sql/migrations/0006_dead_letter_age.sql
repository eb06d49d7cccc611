-- Retention looks at old dead letters only; it reads all of them without this.
create index "dead_letters_by_receipt" on {schema}."dead_letters" ("received_at");
