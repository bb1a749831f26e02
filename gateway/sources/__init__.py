"""What finds versions of models: the beginning of a version's line.

file_system_storage_path_source looks into base paths; version_files tells whether a version's files are complete,
and checkpoint_need whether the values of its variables belong to them. resource_estimate guesses what it will take.
"""
