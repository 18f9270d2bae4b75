"""The routing table and lookups, on disjoint paths too; what nodes have done wrong is remembered."""
