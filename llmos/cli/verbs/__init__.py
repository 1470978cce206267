"""What each verb does: ``configure_VERB(parser)`` and ``run_VERB(client, args, output)``."""
