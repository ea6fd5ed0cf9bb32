-- Roles, row-level security and the audit views.
-- mail_app sees one tenant at a time (app.tenant_id, set inside each transaction; unset means no rows and a refused
-- write); mail_system (dispatcher, periodic_sync, exporter) sees what it needs across tenants; mail_audit reads the
-- audit schema and nothing else.

INSERT INTO tenants (id) VALUES ('system');

GRANT USAGE ON SCHEMA public TO mail_app, mail_system, mail_audit_views;

-- A reused connection answers '' where it was never set, hence nullif.
CREATE FUNCTION current_tenant() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('app.tenant_id', true), '');

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['credentials', 'email_clients', 'email_folders', 'email_messages', 'email_attachments',
                                'jobs', 'executions', 'recipients'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY tenant ON %I TO mail_app USING (tenant_id = current_tenant()) '
                       'WITH CHECK (tenant_id = current_tenant())', name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO mail_app', name);
    END LOOP;
END $$;

ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tenants FOR SELECT TO mail_app USING (id = current_tenant());
GRANT SELECT ON tenants TO mail_app;

CREATE POLICY system ON tenants TO mail_system USING (true) WITH CHECK (true);
CREATE POLICY system ON jobs TO mail_system USING (true) WITH CHECK (true);
CREATE POLICY system ON executions TO mail_system USING (true) WITH CHECK (true);
CREATE POLICY system ON email_clients FOR SELECT TO mail_system USING (true);
GRANT SELECT, INSERT ON tenants TO mail_system;
GRANT SELECT, INSERT, UPDATE ON jobs, executions TO mail_system;
-- Not the credential: the system principal can't open a mailbox.
GRANT SELECT (id, tenant_id, user_id, enabled, sync_interval_s, last_sync_at, created_at, sync_lease_until)
    ON email_clients TO mail_system;

-- The views belong to a role that can't log in, whose policies are the only ones that read across tenants for audit.
CREATE SCHEMA audit;
GRANT USAGE, CREATE ON SCHEMA audit TO mail_audit_views;
GRANT USAGE ON SCHEMA audit TO mail_audit;
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['tenants', 'email_clients', 'email_folders', 'email_messages', 'jobs', 'executions',
                                'recipients'] LOOP
        EXECUTE format('CREATE POLICY audit ON %I FOR SELECT TO mail_audit_views USING (true)', name);
        EXECUTE format('GRANT SELECT ON %I TO mail_audit_views', name);
    END LOOP;
END $$;

CREATE FUNCTION audit.ns(moment timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (extract(epoch FROM moment) * 1000000)::bigint * 1000;
GRANT EXECUTE ON FUNCTION audit.ns TO mail_audit, mail_audit_views;

CREATE VIEW audit.jobs AS
SELECT id::text AS job_id, tenant_id, user_id, name, queue, state, outcome, error_type, client_id::text AS client_id,
       parent_job_id::text AS parent_job_id, message_id, split_part(traceparent, '-', 2) AS trace_id,
       audit.ns(created_at) AS created_ns, audit.ns(due_at) AS due_ns, audit.ns(lease_until) AS lease_until_ns,
       audit.ns(finished_at) AS finished_ns, publishes, refusals, executions
FROM jobs;

CREATE VIEW audit.executions AS
SELECT id::text AS execution_id, job_id::text AS job_id, tenant_id, name, queue, ordinal, node, host, pid,
       process_start_ns, audit.ns(due_at) AS due_ns, audit.ns(received_at) AS received_ns,
       audit.ns(started_at) AS started_ns, audit.ns(ended_at) AS ended_ns, outcome, error_type, trace_id, span_id,
       parent_span_id, pss_before_bytes, pss_peak_bytes
FROM executions;

CREATE VIEW audit.recipients AS
SELECT job_id::text AS job_id, tenant_id, address, role, state, reply_code, audit.ns(updated_at) AS updated_ns
FROM recipients;

CREATE VIEW audit.messages AS
SELECT m.id::text AS id, m.tenant_id, m.user_id, m.client_id::text AS client_id, c.address AS mailbox, f.name AS folder,
       f.type AS folder_type, m.uidvalidity, m.uid, m.message_id, m.size_bytes, encode(m.sha256, 'hex') AS sha256,
       m.is_sent, audit.ns(m.created_at) AS created_ns
FROM email_messages m LEFT JOIN email_folders f ON f.id = m.folder_id LEFT JOIN email_clients c ON c.id = m.client_id;

CREATE VIEW audit.clients AS
SELECT id::text AS client_id, tenant_id, user_id, address, audit.ns(last_sync_at) AS last_sync_ns
FROM email_clients;

CREATE VIEW audit.folders AS
SELECT id::text AS folder_id, tenant_id, client_id::text AS client_id, name, type, sync_token, message_count
FROM email_folders;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['jobs', 'executions', 'recipients', 'messages', 'clients', 'folders'] LOOP
        EXECUTE format('ALTER VIEW audit.%I OWNER TO mail_audit_views', name);
        EXECUTE format('GRANT SELECT ON audit.%I TO mail_audit', name);
    END LOOP;
END $$;
REVOKE CREATE ON SCHEMA audit FROM mail_audit_views;
