"""The verbs, each with ``configure_VERB(parser)`` and ``run_VERB(client, args, output)``."""
