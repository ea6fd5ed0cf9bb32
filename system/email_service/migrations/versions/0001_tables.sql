-- The tables of models.py as of this migration.
CREATE TABLE tenants (
    id TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    PRIMARY KEY (id)
);


CREATE TABLE credentials (
    id UUID NOT NULL,
    tenant_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    salt BYTEA NOT NULL,
    nonce BYTEA NOT NULL,
    ciphertext BYTEA NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(tenant_id) REFERENCES tenants (id)
);


CREATE TABLE jobs (
    id UUID NOT NULL,
    tenant_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    name TEXT NOT NULL,
    queue TEXT NOT NULL,
    args JSONB NOT NULL,
    state TEXT NOT NULL,
    outcome TEXT,
    error_type TEXT,
    client_id UUID,
    parent_job_id UUID,
    message_id TEXT,
    idempotency_key TEXT,
    request_sha256 BYTEA,
    traceparent TEXT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    due_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    next_publish_at TIMESTAMP WITH TIME ZONE,
    lease_until TIMESTAMP WITH TIME ZONE,
    lease_execution_id UUID,
    started_at TIMESTAMP WITH TIME ZONE,
    finished_at TIMESTAMP WITH TIME ZONE,
    publishes INTEGER DEFAULT 0 NOT NULL,
    refusals INTEGER DEFAULT 0 NOT NULL,
    executions INTEGER DEFAULT 0 NOT NULL,
    failures INTEGER DEFAULT 0 NOT NULL,
    settled_xid xid8,
    PRIMARY KEY (id),
    FOREIGN KEY(tenant_id) REFERENCES tenants (id)
);

CREATE INDEX jobs_client ON jobs (client_id, state);
CREATE INDEX jobs_feed ON jobs (tenant_id, user_id, settled_xid, id) WHERE settled_xid IS NOT NULL;
CREATE UNIQUE INDEX jobs_idempotency ON jobs (tenant_id, user_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_publish ON jobs (next_publish_at) WHERE next_publish_at IS NOT NULL;

CREATE TABLE email_clients (
    id UUID NOT NULL,
    tenant_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    address TEXT NOT NULL,
    imap_host TEXT NOT NULL,
    imap_port INTEGER NOT NULL,
    imap_encryption TEXT NOT NULL,
    smtp_host TEXT NOT NULL,
    smtp_port INTEGER NOT NULL,
    smtp_encryption TEXT NOT NULL,
    username TEXT NOT NULL,
    credential_id UUID NOT NULL,
    enabled BOOLEAN DEFAULT true NOT NULL,
    sync_interval_s INTEGER DEFAULT 300 NOT NULL,
    last_sync_at TIMESTAMP WITH TIME ZONE,
    sync_execution_id UUID,
    sync_lease_until TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(tenant_id) REFERENCES tenants (id),
    FOREIGN KEY(credential_id) REFERENCES credentials (id)
);

CREATE INDEX email_clients_due ON email_clients (enabled, last_sync_at);

CREATE TABLE executions (
    id UUID NOT NULL,
    job_id UUID NOT NULL,
    tenant_id TEXT NOT NULL,
    name TEXT NOT NULL,
    queue TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    node TEXT NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    process_start_ns BIGINT NOT NULL,
    due_at TIMESTAMP WITH TIME ZONE NOT NULL,
    received_at TIMESTAMP WITH TIME ZONE NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE,
    outcome TEXT,
    error_type TEXT,
    trace_id TEXT NOT NULL,
    span_id TEXT NOT NULL,
    parent_span_id TEXT,
    pss_before_bytes BIGINT,
    pss_peak_bytes BIGINT,
    ended_xid xid8,
    PRIMARY KEY (id),
    FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE,
    FOREIGN KEY(tenant_id) REFERENCES tenants (id)
);

CREATE INDEX executions_ended ON executions (ended_xid, id) WHERE ended_xid IS NOT NULL;
CREATE INDEX executions_open ON executions (host) WHERE outcome IS NULL;
CREATE UNIQUE INDEX executions_ordinal ON executions (job_id, ordinal);

CREATE TABLE recipients (
    job_id UUID NOT NULL,
    address TEXT NOT NULL,
    tenant_id TEXT NOT NULL,
    role TEXT NOT NULL,
    state TEXT DEFAULT 'queued' NOT NULL,
    reply_code INTEGER,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    PRIMARY KEY (job_id, address),
    FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE,
    FOREIGN KEY(tenant_id) REFERENCES tenants (id)
);


CREATE TABLE email_folders (
    id UUID NOT NULL,
    tenant_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    client_id UUID NOT NULL,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    sync_token JSONB,
    message_count INTEGER DEFAULT 0 NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(tenant_id) REFERENCES tenants (id),
    FOREIGN KEY(client_id) REFERENCES email_clients (id) ON DELETE CASCADE
);

CREATE UNIQUE INDEX email_folders_name ON email_folders (client_id, name);

CREATE TABLE email_messages (
    id UUID NOT NULL,
    tenant_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    client_id UUID NOT NULL,
    folder_id UUID NOT NULL,
    uidvalidity BIGINT,
    uid BIGINT,
    message_id TEXT,
    sender TEXT NOT NULL,
    recipients_to JSONB NOT NULL,
    recipients_cc JSONB NOT NULL,
    subject TEXT NOT NULL,
    body_text TEXT NOT NULL,
    body_html TEXT,
    headers JSONB NOT NULL,
    flags JSONB NOT NULL,
    size_bytes INTEGER NOT NULL,
    sha256 BYTEA,
    raw BYTEA,
    internal_date TIMESTAMP WITH TIME ZONE,
    is_sent BOOLEAN DEFAULT false NOT NULL,
    is_spam BOOLEAN DEFAULT false NOT NULL,
    is_broken BOOLEAN DEFAULT false NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(tenant_id) REFERENCES tenants (id),
    FOREIGN KEY(folder_id) REFERENCES email_folders (id) ON DELETE CASCADE
);

CREATE UNIQUE INDEX email_messages_identity ON email_messages (folder_id, uidvalidity, uid);
CREATE UNIQUE INDEX email_messages_local ON email_messages (folder_id, message_id) WHERE uid IS NULL;
CREATE INDEX email_messages_owner ON email_messages (tenant_id, user_id, internal_date);

CREATE TABLE email_attachments (
    id UUID NOT NULL,
    tenant_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    message_id UUID,
    blob_key TEXT NOT NULL,
    filename TEXT NOT NULL,
    content_type TEXT NOT NULL,
    content_id TEXT,
    inline BOOLEAN DEFAULT false NOT NULL,
    size_bytes BIGINT NOT NULL,
    sha256 BYTEA NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(tenant_id) REFERENCES tenants (id),
    FOREIGN KEY(message_id) REFERENCES email_messages (id) ON DELETE CASCADE
);

CREATE INDEX email_attachments_message ON email_attachments (message_id);

