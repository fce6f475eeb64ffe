"""Programs that make the inputs of an exported encoder from raw samples: `preprocess.py` of an export, one file per kind of data.

Each is copied as it is into the exported folder, where it reads `preprocessor/`. It must not import sslcli or torch. `guides.py`
says which kind of data has which program.
"""
