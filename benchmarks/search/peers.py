"""The peers: tantivy for words, hnswlib for vectors. Both keep everything in this process."""

from typing import Any

import hnswlib
import numpy as np
import tantivy

from benchmarks.search.sounds import DIMENSIONS, Library, Vectors
from samplemind.search.text import split_words

_M, _EF_CONSTRUCTION = 16, 64
_FIELDS = {"title": 4.0, "tags": 2.0, "pack": 1.5, "path": 1.0}
_WRITER_MEMORY_BYTES = 256 * 1024 * 1024


class TantivyPeer:
    """The library's words in an index in memory, BM25 with the same weights' order."""

    def __init__(self, library: Library) -> None:
        builder = tantivy.SchemaBuilder()
        builder.add_unsigned_field("number", stored=True)
        for field in _FIELDS:
            builder.add_text_field(field, stored=field == "title", tokenizer_name="en_stem")
        self._index = tantivy.Index(builder.build())
        writer = self._index.writer(_WRITER_MEMORY_BYTES, 2)
        number = 0
        for chunk in library:
            for sound in chunk.sounds:
                writer.add_document(
                    tantivy.Document(
                        number=number,
                        title=split_words(sound.title),
                        tags=" ".join(sound.tags),
                        pack=split_words(sound.pack),
                        path=split_words(sound.path),
                    )
                )
                number += 1
        writer.commit()
        writer.wait_merging_threads()
        self._index.reload()
        self._searcher = self._index.searcher()

    def search(self, query: str) -> list[str]:
        """Return the titles of the best 20; words are joined by AND, as the platform does."""
        text = " OR ".join(query.split(" or ")) if " or " in query else " AND ".join(query.split())
        parsed = self._index.parse_query(text, list(_FIELDS), field_boosts=_FIELDS)
        found = self._searcher.search(parsed, 20, count=False)
        return [self._searcher.doc(address)["title"][0] for _, address in found.hits]


class HnswlibPeer:
    """The library's vectors in a graph in memory, built as the platform's is."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors
        self._index: Any = hnswlib.Index("ip", DIMENSIONS)
        self._index.init_index(len(vectors), M=_M, ef_construction=_EF_CONSTRUCTION)
        self._index.add_items(vectors, num_threads=2)
        self._index.set_num_threads(1)
        self.ef = 0

    def reach(self, recall: float, questions: Vectors, exact: list[set[int]]) -> float:
        """Set the smallest effort that reaches a recall@10 and return the recall."""
        reached = 0.0
        for ef in (10, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 1000):
            self.ef = ef
            self._index.set_ef(ef)
            reached = float(
                np.mean(
                    [
                        len(exact[i] & set(self.search(question))) / 10
                        for i, question in enumerate(questions)
                    ]
                )
            )
            if reached >= recall:
                break
        return reached

    def search(self, question: Vectors) -> list[int]:
        """Return the places of the nearest ten."""
        found, _ = self._index.knn_query(question, 10)
        places: list[int] = found[0].tolist()
        return places
