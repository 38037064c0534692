"""How fast and how right the audio analysis is, on sounds made here or installed by Debian."""
