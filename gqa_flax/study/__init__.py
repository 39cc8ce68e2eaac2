"""The paper's experiments: as data, run, tabulated, drawn, reported."""
