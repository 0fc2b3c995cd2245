"""Content-addressed store: keys made of named factors, blobs under their digest, durable and verified.

    ltx_cache.store      Store, Hit, Miss: start here; its first lines say what it guarantees
    ltx_cache.key        Key, Factor, differences: what identifies a result
    ltx_cache.blobref    BlobRef: names the bytes of a blob
    ltx_cache.home       home: where the store is
    ltx_cache.canonical  canonical, digest: one value, one sequence of bytes
    ltx_cache.errors     LtxError and what else can go wrong

Nothing is imported here, so that a command which only needs the errors doesn't pay for the rest. The modules
above are public, the others may change.
"""
