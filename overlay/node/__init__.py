"""One node put together: its store, its membership in the overlay and its life cycle."""
