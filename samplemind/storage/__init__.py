"""Object stores: a local directory, S3, Google Cloud Storage and Azure Blob behind one protocol."""
