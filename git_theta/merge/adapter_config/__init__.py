"""The ``adapter_config.json`` beside a merged adapter."""
