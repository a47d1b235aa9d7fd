"""Text encoders and language models, each behind a protocol of ``core``; what they compute is cached on disk."""
