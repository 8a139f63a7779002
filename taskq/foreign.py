"""Celery's names that are no settings of taskq: those it lacks, and what others were called once.

Which settings taskq has, and what is said of a wrong name, is the business of `settings`.
"""

from collections.abc import Collection

#: Settings of Celery that taskq does not have (yet), so that their names are not called misspelt.
FOREIGN = frozenset(
    """
    broker_read_url broker_write_url broker_transport broker_transport_options
    broker_connection_max_retries broker_channel_error_retry broker_failover_strategy
    broker_heartbeat_checkrate broker_login_method broker_native_delayed_delivery_queue_type
    broker_pool_limit broker_pool_acquire_timeout broker_host broker_port broker_user
    broker_password broker_vhost
    beat_enable_remote_control beat_remote_control_max_tick_age beat_max_loop_interval
    beat_scheduler beat_schedule_filename beat_sync_every
    beat_cron_starting_deadline
    cache_backend cache_backend_options cassandra_entry_ttl cassandra_keyspace cassandra_port
    cassandra_read_consistency cassandra_servers cassandra_bundle_path cassandra_table
    cassandra_write_consistency cassandra_auth_provider cassandra_auth_kwargs cassandra_options
    s3_access_key_id s3_secret_access_key s3_bucket s3_base_path s3_endpoint_url s3_region
    azureblockblob_container_name azureblockblob_retry_initial_backoff_sec
    azureblockblob_retry_increment_base azureblockblob_retry_max_attempts
    azureblockblob_base_path azureblockblob_connection_timeout azureblockblob_read_timeout
    gcs_bucket gcs_project gcs_base_path gcs_ttl
    control_queue_ttl control_queue_expires control_queue_exclusive control_queue_durable
    control_exchange
    couchbase_backend_settings arangodb_backend_settings mongodb_backend_settings
    cosmosdbsql_database_name cosmosdbsql_collection_name cosmosdbsql_consistency_level
    cosmosdbsql_max_retry_attempts cosmosdbsql_max_retry_wait_time
    event_queue_expires event_queue_ttl event_queue_prefix event_queue_exclusive
    event_queue_durable event_serializer event_exchange
    redis_backend_use_ssl redis_db redis_host redis_max_connections redis_username
    redis_password redis_port redis_socket_timeout redis_socket_connect_timeout
    redis_retry_on_timeout redis_socket_keepalive
    result_cache_max result_compression result_exchange result_exchange_type
    result_chord_expires result_failure_expires result_persistent result_extended
    result_chord_retry_interval result_chord_join_timeout
    result_backend_max_sleep_between_retries_ms result_backend_max_retries
    result_backend_base_sleep_between_retries_ms result_backend_always_retry
    elasticsearch_retry_on_timeout elasticsearch_max_retries elasticsearch_timeout
    elasticsearch_save_meta_as_text
    security_certificate security_cert_store security_key security_key_password security_digest
    database_url database_engine_options database_engine_callback
    database_short_lived_sessions database_table_schemas database_table_names
    database_create_tables_at_setup
    task_acks_on_failure task_acks_on_timeout task_annotations
    task_create_missing_queue_type task_create_missing_queue_exchange_type
    task_inherit_parent_priority task_default_delivery_mode task_default_queue_type
    task_default_exchange task_default_exchange_type task_default_routing_key
    task_retry_on_worker_lost task_remote_tracebacks
    task_repr_maxlevels task_allow_error_cb_on_chord_header
    worker_agent worker_autoscaler worker_cancel_long_running_tasks_on_connection_loss
    worker_enable_soft_shutdown_on_idle worker_consumer
    worker_direct worker_deduplicate_successful_tasks
    worker_hijack_root_logger worker_log_color worker_log_datefmt
    worker_log_format worker_lost_wait worker_pool_putlocks worker_pool_restarts
    worker_pool_start_method worker_proc_alive_timeout worker_eta_task_limit
    worker_enable_prefetch_count_reduction worker_disable_prefetch worker_redirect_stdouts
    worker_redirect_stdouts_level worker_state_db
    worker_task_log_datefmt worker_task_log_format worker_timer worker_timer_precision
    worker_detect_quorum_queues
    """.split()  # noqa: SIM905
)

#: What to do instead of setting one of those, where there is something.
INSTEAD = {
    "beat_cron_starting_deadline": "give entries a missed= or expires= of their own",
    "beat_max_loop_interval": "beat sleeps until something is due",
    "broker_pool_limit": "a process has one publishing connection, whatever its threads",
    "broker_read_url": "use broker_url",
    "broker_write_url": "use broker_url",
    "database_url": "use result_backend='db+<url>'",
    "redis_backend_use_ssl": "use result_backend='rediss://...?ssl_ca_certs=...'",
    "redis_host": "use result_backend='redis://...'",
    "task_acks_on_failure": "use task_acks_on_failure_or_timeout",
    "task_acks_on_timeout": "use task_acks_on_failure_or_timeout",
    "task_default_queue_type": "queues are quorum queues, unless they have a maximal priority",
    "task_repr_maxlevels": "use repr_max_length",
    "task_retry_on_worker_lost": "use task_reject_on_worker_lost and max_crashes",
    "worker_lost_wait": "a lost child is noticed at once",
    "worker_pool_start_method": "children are always forked, by a process that runs nothing else",
    "worker_proc_alive_timeout": "use worker_child_start_timeout",
}

#: Old names that no rule leads from to the new one.
RENAMED = {
    "CELERY_MAX_CACHED_RESULTS": "result_cache_max",
    "CELERY_TASK_RESULT_EXPIRES": "result_expires",
    "CELERY_RESULT_DBURI": "database_url",
    "CELERY_RESULT_ENGINE_OPTIONS": "database_engine_options",
    "CELERY_RESULT_DB_SHORT_LIVED_SESSIONS": "database_short_lived_sessions",
    "CELERY_RESULT_DB_TABLENAMES": "database_table_names",
    "CELERY_MESSAGE_COMPRESSION": "task_compression",
    "CELERY_EAGER_PROPAGATES_EXCEPTIONS": "task_eager_propagates",
    "CELERY_SEND_TASK_SENT_EVENT": "task_send_sent_event",
    "CELERYD_WORKER_LOST_WAIT": "worker_lost_wait",
    "CELERY_SEND_EVENTS": "worker_send_task_events",
    "BROKER": "broker_url",
    "BACKEND": "result_backend",
}


def modern(name: str, known: Collection[str]) -> str | None:
    """Today's name of the setting that had the upper-case *name* once, None if none had.

    It is one of the *known* settings, or of those that taskq lacks.
    """
    if name in RENAMED:
        return RENAMED[name]
    rest = name.lower()
    for old, new in (("celeryd_", "worker_"), ("celerybeat_", "beat_"), ("celery_", "task_")):
        if rest.startswith(old):
            rest = rest.removeprefix(old)
            tries = (new + rest, rest, "worker_" + rest)
            return next((each for each in tries if each in known or each in FOREIGN), None)
    return rest if rest in known or rest in FOREIGN else None
