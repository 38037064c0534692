"""Compression of a stream: gzip, zstd or none, both ways in bounded memory.

Invariant: what is decompressed ends exactly where its one frame ends; a stream that stops early,
goes on after its end or does not decode raises `BackupCorruptError`.
"""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from samplemind.errors import BackupCorruptError, InvalidInputError
from samplemind.zstandard import zstd

_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_STEP_BYTES = 1 << 20


class CodecName(StrEnum):
    """How an object is compressed."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


_LEVELS = {CodecName.NONE: (0, 0, 0), CodecName.GZIP: (1, 6, 9), CodecName.ZSTD: (1, 1, 19)}
"""Least, default and greatest level. zstd's 1 gains nothing from 3 on dumps of vectors."""


@dataclass(frozen=True)
class Codec:
    """A codec with its level; zstd may use threads beside the one that feeds it."""

    name: CodecName = CodecName.ZSTD
    level: int | None = None
    threads: int = 0

    def __post_init__(self) -> None:
        least, _, greatest = _LEVELS[self.name]
        if self.level is not None and not least <= self.level <= greatest:
            message = f"{self.name} has levels {least} to {greatest}, not {self.level}"
            raise InvalidInputError(message)

    def compress(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the blocks compressed, as one frame with a checksum of its own."""
        level = _LEVELS[self.name][1] if self.level is None else self.level
        if self.name is CodecName.NONE:
            yield from blocks
        elif self.name is CodecName.GZIP:
            deflate = zlib.compressobj(level, zlib.DEFLATED, _GZIP_WINDOW)
            for block in blocks:
                if squeezed := deflate.compress(block):
                    yield squeezed
            yield deflate.flush()
        else:
            compressor = zstd.ZstdCompressor(
                options={
                    zstd.CompressionParameter.compression_level: level,
                    zstd.CompressionParameter.nb_workers: self.threads,
                    zstd.CompressionParameter.checksum_flag: 1,
                }
            )
            for block in blocks:
                if squeezed := compressor.compress(block):
                    yield squeezed
            yield compressor.flush()


def decompress(name: CodecName, blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what was compressed.

    Raises:
        BackupCorruptError: the stream is cut off, damaged, or goes on after its end.
    """
    if name is CodecName.NONE:
        yield from blocks
        return
    try:
        yield from _gunzip(blocks) if name is CodecName.GZIP else _unzstd(blocks)
    except (zlib.error, zstd.ZstdError) as error:
        message = f"the {name} stream does not decode: {error}"
        raise BackupCorruptError(message) from error


def _gunzip(blocks: Iterable[bytes]) -> Iterator[bytes]:
    inflate = zlib.decompressobj(_GZIP_WINDOW)
    for block in blocks:
        _refuse_after_end(CodecName.GZIP, inflate.eof)
        rest = block
        while rest:
            # Bounded, as a small block may stand for gigabytes.
            if plain := inflate.decompress(rest, _STEP_BYTES):
                yield plain
            rest = inflate.unconsumed_tail
        _refuse_after_end(CodecName.GZIP, bool(inflate.unused_data))
    while not inflate.eof and (plain := inflate.decompress(b"", _STEP_BYTES)):
        yield plain
    _refuse_early_end(CodecName.GZIP, inflate.eof)


def _unzstd(blocks: Iterable[bytes]) -> Iterator[bytes]:
    frame = zstd.ZstdDecompressor()
    for block in blocks:
        _refuse_after_end(CodecName.ZSTD, frame.eof)
        rest = block
        while not frame.eof:
            if plain := frame.decompress(rest, _STEP_BYTES):
                yield plain
            rest = b""  # what is left of the block lies in the decompressor
            if frame.needs_input:
                break
        _refuse_after_end(CodecName.ZSTD, bool(frame.unused_data))
    _refuse_early_end(CodecName.ZSTD, frame.eof)


def _refuse_after_end(name: CodecName, ended: bool) -> None:
    if ended:
        message = f"the {name} stream goes on after its end"
        raise BackupCorruptError(message)


def _refuse_early_end(name: CodecName, ended: bool) -> None:
    if not ended:
        message = f"the {name} stream ends too early"
        raise BackupCorruptError(message)
