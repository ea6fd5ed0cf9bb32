-- What the exporter counts must be told by rows alone, the same after a restart as before it: so each row keeps what it
-- was when it was first settled. Every column is added with a default or as null: no table is rewritten.

-- Seconds by step of SMTP and IMAP, such as {"smtp.send": 0.012}; null for an execution that was killed.
ALTER TABLE executions ADD COLUMN steps JSONB;

-- apart_xid: the transaction that settled the job without ending an execution: its client was deleted, or a Message-ID
-- in the sent folder proved what was unknown. unknown_*: what such a proof has overwritten.
ALTER TABLE jobs
    ADD COLUMN apart_xid xid8,
    ADD COLUMN unknown_xid xid8,
    ADD COLUMN unknown_error_type TEXT;
CREATE INDEX jobs_apart ON jobs (apart_xid, id) WHERE apart_xid IS NOT NULL;

ALTER TABLE recipients ADD COLUMN was_unknown BOOLEAN DEFAULT false NOT NULL;

-- What the older version settled so. Row-level security is forced on the owner too, and lifted for these statements:
-- nobody else sees the tables before this transaction ends.
ALTER TABLE jobs NO FORCE ROW LEVEL SECURITY;
ALTER TABLE executions NO FORCE ROW LEVEL SECURITY;
UPDATE jobs j SET apart_xid = j.settled_xid
WHERE j.settled_xid IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM executions e WHERE e.job_id = j.id AND e.ended_xid = j.settled_xid);
-- Which of its recipients were unknown is not known any more.
UPDATE jobs j SET unknown_xid = e.ended_xid, unknown_error_type = e.error_type
FROM executions e WHERE e.job_id = j.id AND e.outcome = 'unknown' AND j.apart_xid IS NOT NULL;
ALTER TABLE jobs FORCE ROW LEVEL SECURITY;
ALTER TABLE executions FORCE ROW LEVEL SECURITY;

-- The exporter counts recipients by state and reply; whose they are is none of its business.
CREATE POLICY system ON recipients FOR SELECT TO mail_system USING (true);
GRANT SELECT (job_id, state, reply_code, was_unknown) ON recipients TO mail_system;
GRANT SELECT (apart_xid, unknown_xid, unknown_error_type) ON jobs TO mail_system;

-- More for the rig's eyes; a view's new columns go last.
CREATE OR REPLACE VIEW audit.jobs AS
SELECT id::text AS job_id, tenant_id, user_id, name, queue, state, outcome, error_type, client_id::text AS client_id,
       parent_job_id::text AS parent_job_id, message_id, split_part(traceparent, '-', 2) AS trace_id,
       audit.ns(created_at) AS created_ns, audit.ns(due_at) AS due_ns, audit.ns(lease_until) AS lease_until_ns,
       audit.ns(finished_at) AS finished_ns, publishes, refusals, executions, result, failures,
       unknown_xid IS NOT NULL AS was_unknown, unknown_error_type
FROM jobs;

CREATE OR REPLACE VIEW audit.executions AS
SELECT id::text AS execution_id, job_id::text AS job_id, tenant_id, name, queue, ordinal, node, host, pid,
       process_start_ns, audit.ns(due_at) AS due_ns, audit.ns(received_at) AS received_ns,
       audit.ns(started_at) AS started_ns, audit.ns(ended_at) AS ended_ns, outcome, error_type, trace_id, span_id,
       parent_span_id, pss_before_bytes, pss_peak_bytes, steps
FROM executions;

CREATE OR REPLACE VIEW audit.recipients AS
SELECT job_id::text AS job_id, tenant_id, address, role, state, reply_code, audit.ns(updated_at) AS updated_ns,
       was_unknown
FROM recipients;
