"""The configuration: `ls conf/<group>` lists a group's options. Installed as `normlab.conf`."""
